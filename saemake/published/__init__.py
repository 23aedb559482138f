"""The published SAEs: fetching them, laying out rebuilt ones like them, comparing the two."""
