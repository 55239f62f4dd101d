//! Sending a result, again and again where that may help.

use std::time::{Duration, Instant};

use openstack_client::http::Client;
use openstack_client::signal::{Failed, Transport, attempt};
use serde_json::Value;

use crate::compat::pylog::Log;

/// How long to wait before the second attempt; before each later one twice as long as before the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// Sends `data`, until it is taken or refused, or the next attempt would come after `deadline` (`None`: for
/// ever). There is one attempt at least. Comes back with the status of the answer.
///
/// # Errors
/// It was not taken.
pub fn deliver(
    client: &Client,
    transport: &Transport,
    data: &Value,
    deadline: Option<Instant>,
    log: &mut Log,
) -> Result<u16, Failed> {
    let mut wait = BACKOFF_FIRST;
    loop {
        let why = match attempt(client, transport, data) {
            Err(Failed::Later(why)) => why,
            ended => return ended,
        };
        if deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
            return Err(Failed::Later(why));
        }
        log.warning(format!("{why}; again in {} s", wait.as_secs_f32()));
        std::thread::sleep(wait);
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use openstack_client::testing::{Answer, Asked, HttpServer};
    use serde_json::json;

    use super::*;
    use crate::compat::pylog::{Level, Style};

    fn deliver_to(server: &HttpServer, deadline: Instant) -> Result<u16, Failed> {
        let transport = Transport::Presigned { url: server.url("/x?Signature=secret"), put: false };
        let mut log = Log::new(Style::Named("test"), Level::Critical);
        let data = json!({"deploy_status_code": 0});
        deliver(&Client::default(), &transport, &data, Some(deadline), &mut log)
    }

    #[test]
    fn what_may_be_better_later_is_tried_again_posts_too() {
        let statuses = Mutex::new(vec![200, 503]);
        let server =
            HttpServer::start(move |_| Answer::new(statuses.lock().unwrap().pop().unwrap(), ""));
        let far = Instant::now() + Duration::from_secs(600);
        assert_eq!(deliver_to(&server, far), Ok(200));
        let bodies: Vec<_> = server.asked().iter().map(Asked::text).collect();
        assert_eq!(bodies, [r#"{"deploy_status_code": 0}"#; 2]);
    }

    #[test]
    fn a_refusal_and_the_deadline_end_it() {
        let far = Instant::now() + Duration::from_secs(600);
        for (status, deadline, is_final) in [(403, far, true), (503, Instant::now(), false)] {
            let server = HttpServer::start(move |_| Answer::new(status, ""));
            let failed = deliver_to(&server, deadline).unwrap_err();
            assert_eq!(matches!(failed, Failed::Refused(_)), is_final, "{status}");
            assert_eq!(server.asked().len(), 1);
        }
    }
}
