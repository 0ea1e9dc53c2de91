"""Problems without end: seeded random graphs on random machines."""
