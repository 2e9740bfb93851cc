"""Settings chosen on the first part of a stream, by trial, and compared in pairs with those that stand."""
