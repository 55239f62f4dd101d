//! Keystone and Heat, made of a few lines.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use openstack_client::testing::{Answer, Asked, HttpServer};
use serde_json::{Value as Json, json};

/// Keystone and Heat. A token is `USER@PROJECT:ROLE`.
pub(crate) struct Cloud {
    pub(crate) server: HttpServer,
    /// What Heat says is in force.
    pub(crate) deployments: Arc<Mutex<Json>>,
    /// The status of Keystone's answers to validations, if not its own.
    pub(crate) broken: Arc<AtomicUsize>,
}

impl Cloud {
    pub(crate) fn start() -> Self {
        let deployments = Arc::new(Mutex::new(json!([])));
        let broken = Arc::new(AtomicUsize::new(0));
        let (heat, status) = (deployments.clone(), broken.clone());
        let server = HttpServer::start(move |asked| match status.load(Ordering::Acquire) {
            0 => answer(asked, &heat),
            status => Answer::new(status as u16, "{}"),
        });
        Self { server, deployments, broken }
    }

    /// How often Keystone was asked about tokens.
    pub(crate) fn validations(&self) -> usize {
        let asked = self.server.asked();
        asked.iter().filter(|a| a.method == "GET" && a.target.contains("/auth/tokens")).count()
    }

    pub(crate) fn questions(&self) -> Vec<String> {
        let asked = self.server.asked();
        asked.into_iter().map(|a| a.target).filter(|t| t.starts_with("/heat")).collect()
    }
}

fn answer(asked: &Asked, heat: &Mutex<Json>) -> Answer {
    let host = asked.header("host").unwrap();
    match (asked.method.as_str(), asked.target.as_str()) {
        ("GET", "/v3/auth/tokens?nocatalog") => {
            let token = asked.header("x-subject-token").unwrap();
            assert_eq!(asked.header("x-auth-token"), Some(token), "it validates itself");
            let Some((user, rest)) = token.split_once('@') else { return Answer::new(401, "{}") };
            let (project, role) = rest.split_once(':').unwrap();
            let body = json!({"token": {
                "user": {"id": user, "name": "x"}, "project": {"id": project, "name": "x"},
                "roles": [{"id": "1", "name": role}], "expires_at": "2099-11-22T13:00:00.000000Z",
            }});
            Answer::new(200, body.to_string())
        }
        ("POST", "/v3/auth/tokens") => {
            let body: Json = serde_json::from_slice(&asked.body).unwrap();
            assert_eq!(body["auth"]["identity"]["password"]["user"]["password"], "secret");
            let url = format!("http://{host}/heat");
            let endpoint = json!({"interface": "public", "region_id": "RegionOne", "url": url});
            let catalog = json!([{"type": "orchestration", "endpoints": [endpoint]}]);
            let body = json!({"token": {"expires_at": "2099-11-22T13:00:00Z", "catalog": catalog}});
            Answer::new(201, body.to_string()).header("X-Subject-Token", "mine")
        }
        ("GET", "/heat/software_deployments/metadata/the-server") => {
            assert_eq!(asked.header("x-auth-token"), Some("mine"));
            Answer::new(200, json!({"metadata": *heat.lock().unwrap()}).to_string())
        }
        _ => Answer::new(404, "{}"),
    }
}
