//! The command line.
//!
//! Answers go to stdout, as a table for people or with `--json` in a stable form; everything else goes
//! to stderr. A command that changes something ends with a `next:` line, an error with a `try:` line.

mod check;
mod dev;
mod enroll;
mod logs;
mod many;
mod output;
mod query;
mod run;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use certs::{AgentId, Fingerprint};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::Client;
use crate::config::{Config, ConfigFile, Origin, Override, SettingsArgs, Value};
use crate::error::{Exit, Failure};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   not done
  64  wrong command line
  69  the server cannot be reached
  77  refused: wrong admin token
  78  wrong configuration, or a file it names";

/// Pushes metadata documents to agents over DTLS, and takes their results.
#[derive(Debug, Parser)]
#[command(name = "metadata-server", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server in the foreground
    ///
    /// Example: metadata-server run --listen 0.0.0.0:7843 --advertise metadata.example:7843
    Run {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Try it out: loopback only, state in a temporary folder, an agent ready to be enrolled
    ///
    /// Prints the line that starts an agent, and where the admin API is.
    Dev {
        /// Agents to make enrolment tokens for
        #[arg(long = "agent", value_name = "AGENT_ID", default_value = "demo")]
        agents: Vec<AgentId>,
        /// Print the addresses and files as one line of JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Make an enrolment token for an agent
    ///
    /// The token goes to stdout, once. It is a password: give it to the instance as user data or in a
    /// 0600 file.
    ///
    /// Example: metadata-server enroll 5f0c… --address metadata.example:7843 --ttl 30m --cloud-init
    Enroll {
        /// The agent's id: in practice the server's id in Nova
        #[arg(value_name = "AGENT_ID")]
        agent: AgentId,
        /// Where the agent finds this server; may be repeated [default: advertise, or listen]
        #[arg(long = "address", value_name = "HOST:PORT")]
        addresses: Vec<String>,
        /// How long the token is good for [default: token_ttl, 1h]
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
        /// Print a cloud-init snippet that enrols the instance instead of the bare token
        #[arg(long, conflicts_with = "json")]
        cloud_init: bool,
        /// The queue into which Heat posts the agent's metadata; the project may be left out if only one
        /// has such a queue
        #[arg(long, value_name = "[PROJECT_ID/]QUEUE_ID", conflicts_with = "os_collect_config")]
        queue: Option<String>,
        /// File with the attribute os_collect_config of the agent's server in Heat, or with what
        /// "openstack stack resource show -f json" prints of it; - reads standard input
        #[arg(long, value_name = "FILE")]
        os_collect_config: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Put a metadata document for an agent in force
    ///
    /// Example: metadata-server put 5f0c… metadata.json
    Put {
        /// Whose document
        #[arg(value_name = "AGENT_ID")]
        agent: AgentId,
        /// The document; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Put one metadata document in force for many agents at once
    ///
    /// Example: metadata-server push metadata.json --prefix web-
    Push {
        /// The document; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// For each agent with a pin whose id begins so; '' is every agent with a pin
        #[arg(long, value_name = "TEXT", required_unless_present = "agents_file")]
        prefix: Option<String>,
        /// For each agent named in this file, one id per line; - reads standard input
        #[arg(long, value_name = "FILE", conflicts_with = "prefix")]
        agents_file: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print the metadata document in force for an agent, byte for byte
    Get {
        /// Whose document
        #[arg(value_name = "AGENT_ID")]
        agent: AgentId,
        /// Print version, size and digest instead (with --json as JSON)
        #[arg(long)]
        head: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List agents: who is connected, what each holds and has applied
    Agents {
        /// Only this one, with its deployments
        #[arg(value_name = "AGENT_ID")]
        agent: Option<AgentId>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List results in the order they were stored
    Results {
        /// Only of this agent
        #[arg(value_name = "AGENT_ID")]
        agent: Option<AgentId>,
        /// Only those with a number above this
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
        /// Show what the hooks printed
        #[arg(long, conflicts_with = "json")]
        output: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what an agent's hooks print while they run
    ///
    /// Of each running deployment the end of what it has printed so far, standard output and standard error
    /// together, secrets hidden. Nothing of it is stored: once a run has ended, its result counts ("results").
    ///
    /// Example: metadata-server logs 5f0c… --follow
    Logs {
        /// Whose hooks
        #[arg(value_name = "AGENT_ID")]
        agent: AgentId,
        /// Only of this deployment
        #[arg(long, value_name = "NAME|ID")]
        deployment: Option<String>,
        /// Go on until interrupted, or with --deployment until its result is there
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what happens, line by line, until interrupted
    Watch {
        /// Only what concerns this agent
        #[arg(long, value_name = "AGENT_ID")]
        agent: Option<AgentId>,
        /// End after the first event of this kind, for example result_stored
        #[arg(long, value_name = "EVENT")]
        until: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Check the configuration and the files it names, without running
    CheckConfig {
        /// Configuration file, the same as --config
        #[arg(value_name = "FILE")]
        path: Option<PathBuf>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Show the server's key
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show and change which keys agents may use
    #[command(subcommand)]
    Pins(PinsCommand),
    /// Show the version of this program and of the server, if one answers
    Version {
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Show the fingerprint that agents pin
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Subcommand)]
enum PinsCommand {
    /// List all pins
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Allow an agent to use this key, in addition to others
    Add {
        /// Whose key
        #[arg(value_name = "AGENT_ID")]
        agent: AgentId,
        /// The certificate's fingerprint, "sha-256 AB:CD:…" or plain hex
        fingerprint: Fingerprint,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Allow many agents to use keys: all in a file, or none
    ///
    /// A line has an agent's id, a space and the fingerprint; "agent-client swarm" makes such files.
    Import {
        /// The file; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Do not allow an agent to use this key any more; ends its connection
    Remove {
        /// Whose key
        #[arg(value_name = "AGENT_ID")]
        agent: AgentId,
        /// The certificate's fingerprint
        fingerprint: Fingerprint,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// How a command finds the server.
#[derive(Debug, Args)]
struct ClientArgs {
    /// Print JSON in a stable form
    #[arg(long)]
    json: bool,
    /// Address of the admin API [default: admin_listen, 127.0.0.1:7844]
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "METADATA_SERVER_ADMIN_LISTEN",
        hide_env_values = true,
        help_heading = "Server"
    )]
    admin: Option<String>,
    /// File with the admin token [default: admin-token in state_dir]
    #[arg(
        long,
        value_name = "FILE",
        env = "METADATA_SERVER_ADMIN_TOKEN_FILE",
        hide_env_values = true,
        help_heading = "Server"
    )]
    admin_token_file: Option<String>,
    /// The server's state folder [default: /var/lib/metadata-server]
    #[arg(
        long,
        value_name = "DIR",
        env = "METADATA_SERVER_STATE_DIR",
        hide_env_values = true,
        help_heading = "Server"
    )]
    state_dir: Option<String>,
    /// The server's configuration file [default: /etc/metadata-server/config.toml]
    #[arg(
        long,
        value_name = "FILE",
        env = "METADATA_SERVER_CONFIG",
        hide_env_values = true,
        help_heading = "Server"
    )]
    config: Option<PathBuf>,
}

impl ClientArgs {
    fn client(&self) -> Result<Client, Failure> {
        let given = [
            ("admin_listen", "admin", &self.admin),
            ("admin_token_file", "admin-token-file", &self.admin_token_file),
            ("state_dir", "state-dir", &self.state_dir),
        ];
        let mut overrides: Vec<Override> = given
            .into_iter()
            .filter_map(|(key, flag, text)| {
                let value = Value::Text(text.clone()?);
                Some(Override { key, value, origin: Origin::Flag(flag.into()) })
            })
            .collect();
        // Where to connect to may be anywhere; only listening there has to be asked for.
        overrides.push(Override {
            key: "admin_remote",
            value: Value::Boolean(true),
            origin: Origin::Together,
        });
        let config = Config::load(&ConfigFile::from(self.config.clone()), &overrides)?;
        let mut address = config.admin_listen;
        if address.ip().is_unspecified() {
            address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
        }
        Ok(Client::new(address, config.admin_token_file()))
    }
}

/// The program.
pub fn main() -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| cli.command));
    let command = match parsed {
        Ok(command) => command,
        Err(error) => {
            // Nothing is left to do if the terminal is gone.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match execute(command) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            output::failure(&failure);
            failure.exit.into()
        }
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { settings } => run::run(&settings),
        Command::Dev { agents, json, settings } => dev::dev(&agents, json, settings),
        Command::CheckConfig { path, settings } => check::check(path, settings),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Failure::new(Exit::Failed, format!("cannot start: {e}")))?;
            runtime.block_on(call(command))
        }
    }
}

/// The commands that ask a running server.
async fn call(command: Command) -> Result<(), Failure> {
    match command {
        Command::Enroll { agent, addresses, ttl, cloud_init, queue, os_collect_config, client } => {
            let source = enroll::Source { queue, os_collect_config };
            enroll::enroll(&client, &agent, addresses, ttl.as_deref(), cloud_init, source).await
        }
        Command::Put { agent, file, client } => query::put(&client, &agent, &file).await,
        Command::Push { file, prefix, agents_file, client } => {
            many::push(&client, &file, prefix, agents_file.as_deref()).await
        }
        Command::Get { agent, head, client } => query::get(&client, &agent, head).await,
        Command::Agents { agent, client } => query::agents(&client, agent.as_ref()).await,
        Command::Results { agent, after, output, client } => {
            query::results(&client, agent.as_ref(), after, output).await
        }
        Command::Logs { agent, deployment, follow, client } => {
            logs::logs(&client, &agent, deployment.as_deref(), follow).await
        }
        Command::Watch { agent, until, client } => {
            watch::watch(&client, agent.as_ref(), until.as_deref()).await
        }
        Command::Keys(KeysCommand::List { client }) => query::keys(&client).await,
        Command::Pins(PinsCommand::List { client }) => query::pins(&client).await,
        Command::Pins(PinsCommand::Add { agent, fingerprint, client }) => {
            query::add_pin(&client, &agent, fingerprint).await
        }
        Command::Pins(PinsCommand::Import { file, client }) => many::import(&client, &file).await,
        Command::Pins(PinsCommand::Remove { agent, fingerprint, client }) => {
            query::remove_pin(&client, &agent, fingerprint).await
        }
        Command::Version { client } => query::version(&client).await,
        Command::Run { .. } | Command::Dev { .. } | Command::CheckConfig { .. } => Ok(()),
    }
}
