"""What a notebook or a script uses: `saemake.load`, `saemake.sweep`, and the LM of an SAE."""
