"""The pure half of Reptide: rows and events in, rows and outcomes out. No I/O, no clock, no hidden state."""
