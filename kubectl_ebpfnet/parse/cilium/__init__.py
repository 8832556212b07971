"""What Cilium's commands print, in text and JSON, since Cilium 1.9."""
