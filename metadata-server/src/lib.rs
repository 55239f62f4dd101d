//! The daemon that pushes metadata documents to agents and takes their results.
