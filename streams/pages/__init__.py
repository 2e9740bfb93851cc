"""What a person reads: the page of a run, the page of an episodic evaluation, progress on a terminal."""
