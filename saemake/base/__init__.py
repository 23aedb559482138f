"""What every room stands on: errors, the store, whole files, devices, progress."""
