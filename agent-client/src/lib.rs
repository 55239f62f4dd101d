//! The daemon in the instance: takes documents, runs hooks, sends results back.
