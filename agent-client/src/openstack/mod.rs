//! What is asked of OpenStack.

pub mod cfn;
pub mod keystone;
