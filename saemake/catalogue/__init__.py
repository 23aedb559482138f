"""The published SAEs: what there is, under which names, and how a rebuilt one compares."""
