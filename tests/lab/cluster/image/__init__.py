"""The images of the lab, made without Docker: debootstrap, a Dockerfile carried out, an archive."""
