//! Identities, fingerprints, pins and enrolment tokens.
