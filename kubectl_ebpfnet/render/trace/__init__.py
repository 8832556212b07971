"""What `trace` saw, as text: lines while packets pass, and the answer at the end."""
