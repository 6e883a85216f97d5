//! The certificates of nodebus and the command certgen.
