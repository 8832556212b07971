"""One connection to one API server: kubeconfig, credentials, TLS, REST, and its failures."""
