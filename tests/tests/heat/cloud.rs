//! Heat and Keystone as `tests/heat/up` has left them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openstack_client::http::{Client, Method, Request, Response};
use openstack_client::keystone::{Credentials, sign_in};
use serde_json::Value;

/// How long one request to Heat may take, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One test at a time.
static TURN: Mutex<()> = Mutex::new(());

/// What a project member can ask of the cloud.
pub(crate) struct Cloud {
    directory: PathBuf,
    client: Client,
    token: String,
    /// Id, password and project.
    user: (String, String, String),
    pub(crate) keystone_url: String,
    heat_url: String,
    /// Heat's APIs, without a project.
    heat_apis: [String; 2],
    /// Where Keystone's catalogue says that the messaging service is.
    pub(crate) messaging: SocketAddr,
    _turn: MutexGuard<'static, ()>,
}

impl Cloud {
    /// Signs in as an ordinary member of a project.
    pub(crate) fn enter() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = PathBuf::from(std::env::var_os("HEAT_TEST_DIR").expect(
            "HEAT_TEST_DIR, the work directory of tests/heat/up; \"./test --heat\" sets it",
        ));
        let file = std::fs::read(directory.join("env.json")).expect("tests/heat/up has run");
        let env: Value = serde_json::from_slice(&file).unwrap();
        let text = |value: &Value| value.as_str().expect("text in env.json").to_owned();
        let (keystone_url, user) = (text(&env["auth_url"]), &env["users"]["demo"]);
        let project = text(&user["project_id"]);
        let client = Client::default();
        let credentials = Credentials {
            auth_url: &keystone_url,
            user_id: &text(&user["user_id"]),
            password: &text(&user["password"]),
            project_id: &project,
        };
        let session = sign_in(&client, &credentials, TIMEOUT).expect("a token");
        let messaging = session.endpoint("messaging", None).expect("tests/heat/up --zaqar URL");
        let messaging = messaging.trim_start_matches("http://").parse().unwrap();
        Self {
            directory,
            client,
            token: session.token,
            heat_url: format!("{}/{project}", text(&env["heat_url"])),
            heat_apis: [text(&env["heat_url"]), text(&env["heat_cfn_url"])],
            user: (text(&user["user_id"]), text(&user["password"]), project),
            keystone_url,
            messaging,
            _turn: turn,
        }
    }

    /// How long Keystone takes to say whose a token is that it made a moment ago.
    pub(crate) fn time_of_a_question_about_a_new_token(&self) -> Duration {
        let (user_id, password, project_id) = &self.user;
        let auth_url = &self.keystone_url;
        let credentials = Credentials { auth_url, user_id, password, project_id };
        let token = sign_in(&self.client, &credentials, TIMEOUT).expect("a token").token;
        let request = Request::get(format!("{auth_url}/auth/tokens?nocatalog"))
            .header("X-Auth-Token", &token)
            .header("X-Subject-Token", &token)
            .timeout(TIMEOUT);
        let began = Instant::now();
        let response = self.client.send(&request).expect("an answer of Keystone");
        let time = began.elapsed();
        assert_eq!(response.status, 200, "{}", response.text());
        time
    }

    /// Where signals may go, as an operator writes it.
    pub(crate) fn signals_to(&self) -> String {
        let own = format!("http://{}/", self.messaging);
        [&self.heat_apis[0], &self.heat_apis[1], &self.keystone_url, &own]
            .map(String::as_str)
            .join(",")
    }

    /// A request to Heat's API, as JSON.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Response {
        let mut request = Request::new(method, format!("{}{path}", self.heat_url))
            .header("Accept", "application/json")
            .header("X-Auth-Token", &self.token)
            .timeout(TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.client.send(&request).expect("an answer of Heat")
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let response = self.ask(Method::Get, path, None);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        serde_json::from_slice(&response.body).unwrap()
    }

    /// Runs the client that operators use, as the same user; its output.
    pub(crate) fn openstack(&self, arguments: &[&str]) -> String {
        let script = ". \"$0/openrc-demo\" && exec /usr/bin/openstack \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&self.directory).args(arguments);
        let output = command.output().unwrap();
        let (out, err) =
            [output.stdout, output.stderr].map(|o| String::from_utf8(o).unwrap()).into();
        assert!(output.status.success(), "openstack {arguments:?}: {err}");
        out
    }

    /// Ends Heat, of one process or of several, without a warning.
    pub(crate) fn kill_heat(&self) {
        let mut killed = 0;
        for entry in std::fs::read_dir(self.directory.join("run")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            let name = name.to_str().unwrap();
            if !(name.starts_with("heat-") && name.ends_with(".pid")) {
                continue;
            }
            let pid = std::fs::read_to_string(entry.path()).unwrap();
            let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            let gone = || rustix::process::test_kill_process(pid).is_err().then_some(());
            system_tests::wait_until("Heat to be gone", gone);
            killed += 1;
        }
        assert_ne!(killed, 0, "a Heat to be killed");
    }

    /// Starts Heat again, with the state it has.
    pub(crate) fn start_heat(&self) {
        let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("heat/up");
        let mut command = Command::new(up);
        command.arg("--no-install").arg("--dir").arg(&self.directory);
        if self.directory.join("run/rabbit.pid").exists() {
            command.args(["--rpc", "rabbit"]);
        }
        let url = format!("http://{}", self.messaging);
        let objects = format!("{url}/v1/AUTH_%(project_id)s");
        let output = command.args(["--zaqar", &url, "--swift", &objects]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// One of the templates.
pub(crate) fn template(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("heat/templates/{name}.yaml"));
    std::fs::read_to_string(file).unwrap()
}
