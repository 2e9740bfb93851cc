"""Events as numbers: columns, a task's own past, and how they enter a network."""
