"""What the operating system gives: files written whole, locks, certificates, the machine."""
