"""The long-running processes of a deployment and the commands around them: worker, trainer, produce, tail, topics."""
