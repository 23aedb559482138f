"""Publishing SAEs: in SAELens's format, and on the Hub with a model card."""
