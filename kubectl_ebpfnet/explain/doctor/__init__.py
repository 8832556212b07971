"""doctor: what each command will see of a cluster with the rights of this user."""
