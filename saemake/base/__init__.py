"""What every other room uses: errors, the store, atomic file writes, devices, progress bars."""
