"""What all parts of seqnet use: checks, locks, names of types, and older names of arguments."""
