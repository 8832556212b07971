"""The API server and its controllers, the cluster's objects, a load-balancer's addresses."""
