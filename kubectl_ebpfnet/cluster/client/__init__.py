"""One connection to one API server: kubeconfig, credentials, TLS, REST, and failures."""
