//! What is asked of OpenStack.

pub mod keystone;
