"""Names of artifacts: every path under results/, hub/, published/, saelens/ and published-to/."""
