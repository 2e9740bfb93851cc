"""The running program: worker, trainer and theta, in one process or as the services of a deployment."""
