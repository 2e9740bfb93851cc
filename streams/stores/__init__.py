"""Where rows and versions of theta live."""
