//! How the daemon ends when it cannot do what is asked of it.

use anyhow::anyhow;

use crate::enrolment::EnrolmentError;
use crate::exit::{Abort, Exit};
use crate::link::failure::Failure;

/// The end of a command that needs an enrolment.
pub fn abort_of_enrolment(error: EnrolmentError) -> Abort {
    let hint = match &error {
        EnrolmentError::Missing(_) => Some(
            "on the server run: metadata-server enroll ID; then here: agent-client enroll --token-file FILE",
        ),
        EnrolmentError::Other { .. } => {
            Some("to become the other one: agent-client enroll --replace --token-file FILE")
        }
        _ => None,
    };
    let abort = Abort::new(Exit::Config, error);
    match hint {
        Some(hint) => abort.hint(hint),
        None => abort,
    }
}

/// The end because of the connection.
pub(super) fn abort_of_failure(exit: Exit, failure: &Failure) -> Abort {
    let abort = Abort::new(exit, anyhow!("{failure}"));
    match &failure.hint {
        Some(hint) => abort.hint(hint),
        None => abort,
    }
}
