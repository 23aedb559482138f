"""The published SAEs: fetched, laid out, and compared with rebuilt ones."""
