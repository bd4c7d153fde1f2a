"""The Ray Serve deployments: shells around the models and the HTTP surface."""
