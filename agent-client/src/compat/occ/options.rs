//! Every option, in one table: what the command line, the files and the environment can set.

/// The group of options that are in none.
pub(super) const DEFAULT: &str = "DEFAULT";

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A URL with a scheme and a host.
    Uri,
    /// A number, mostly of seconds.
    Number,
    /// A whole number.
    Integer,
    /// True or false.
    Flag,
    /// As many texts as there are lines or options of it.
    List,
}

impl Kind {
    /// As oslo.config calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "String",
            Self::Uri => "URI",
            Self::Number => "Float",
            Self::Integer => "Integer",
            Self::Flag => "Boolean",
            Self::List => "MultiString",
        }
    }
}

/// One option.
#[derive(Debug)]
pub(super) struct Opt {
    /// The section of the file.
    pub(super) group: &'static str,
    /// The key in the file.
    pub(super) key: &'static str,
    /// The option on the command line, without dashes before it and without the group.
    pub(super) name: &'static str,
    /// One letter that means the same.
    pub(super) short: Option<char>,
    pub(super) kind: Kind,
    /// The values if nothing is said; none if empty.
    pub(super) default: &'static [&'static str],
    pub(super) help: &'static str,
}

impl Opt {
    const fn new(
        group: &'static str,
        key: &'static str,
        name: &'static str,
        kind: Kind,
        default: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { group, key, name, short: None, kind, default, help }
    }

    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// The option on the command line.
    pub(super) fn long(&self) -> String {
        self.with_prefix("")
    }

    /// The option that means the opposite, if this is a flag.
    pub(super) fn inverse(&self) -> Option<String> {
        (self.kind == Kind::Flag).then(|| self.with_prefix("no"))
    }

    fn with_prefix(&self, prefix: &str) -> String {
        match self.group {
            DEFAULT => format!("--{prefix}{}", self.name),
            group => format!("--{group}-{prefix}{}", self.name),
        }
    }

    /// The environment variable.
    pub(super) fn variable(&self) -> String {
        format!("OS_{}__{}", self.group.to_uppercase(), self.key.to_uppercase())
    }
}

/// The collectors, in the order in which they are asked unless told otherwise.
pub(super) const COLLECTORS: [&str; 7] =
    ["heat_local", "ec2", "cfn", "heat", "request", "local", "zaqar"];

const USER_ID: &str = "user that asks Keystone";
const PASSWORD: &str = "its password; better in a file than here";
const PROJECT_ID: &str = "its project";
const AUTH_URL: &str = "where Keystone is";
const REGION: &str = "region whose endpoint is used (default: the first)";
const TIMEOUT: &str = "seconds to wait for a connection and for each read";

/// All options; a line for each.
#[rustfmt::skip]
pub(super) static OPTIONS: &[Opt] = {
    use Kind::{Flag, Integer, List, Number, Text, Uri};
    &[
        Opt::new(DEFAULT, "command", "command", Text, &[], "run by a shell when something changed; without it, print and exit").short('c'),
        Opt::new(DEFAULT, "cachedir", "cachedir", Text, &["/var/lib/os-collect-config"], "where collected metadata is kept"),
        Opt::new(DEFAULT, "backup_cachedir", "backup-cachedir", Text, &["/var/run/os-collect-config"], "gets a copy of it at each change"),
        Opt::new(DEFAULT, "collectors", "collectors", List, &COLLECTORS, "where to collect from, in this order"),
        Opt::new(DEFAULT, "one_time", "one-time", Flag, &["false"], "collect once, run the command if something changed, exit as it did"),
        Opt::new(DEFAULT, "min_polling_interval", "min-polling-interval", Number, &["1"], "first pause between collections, in seconds; doubled each time"),
        Opt::new(DEFAULT, "polling_interval", "polling-interval", Number, &["30"], "longest pause between collections, in seconds").short('i'),
        Opt::new(DEFAULT, "print_cachedir", "print-cachedir", Flag, &["false"], "print the cache directory and exit"),
        Opt::new(DEFAULT, "force", "force", Flag, &["false"], "run the command even if nothing changed; implies --one-time"),
        Opt::new(DEFAULT, "print_only", "print", Flag, &["false"], "collect, print as JSON and exit; never run the command"),
        Opt::new(DEFAULT, "deployment_key", "deployment-key", List, &["deployments"], "keys whose lists of deployments become files of their own"),
        Opt::new(DEFAULT, "splay", "splay", Number, &["0"], "wait a random time first, up to so many seconds"),
        Opt::new(DEFAULT, "debug", "debug", Flag, &["false"], "log more").short('d'),
        Opt::new(DEFAULT, "log_file", "log-file", Text, &[], "log into this file and not to standard error"),
        Opt::new(DEFAULT, "log_dir", "log-dir", Text, &[], "directory of the log file"),
        Opt::new(DEFAULT, "log_date_format", "log-date-format", Text, &[], "ignored: times are logged as by default"),
        Opt::new(DEFAULT, "log_config_append", "log-config-append", Text, &[], "ignored: a configuration of Python's logging"),
        Opt::new(DEFAULT, "use_syslog", "use-syslog", Flag, &["false"], "log to the system's log"),
        Opt::new(DEFAULT, "use_journal", "use-journal", Flag, &["false"], "the same"),
        Opt::new(DEFAULT, "use_json", "use-json", Flag, &["false"], "ignored: lines are logged as text"),
        Opt::new(DEFAULT, "syslog_log_facility", "syslog-log-facility", Text, &["LOG_USER"], "facility of the lines in the system's log"),
        Opt::new("ec2", "metadata_url", "metadata-url", Uri, &["http://169.254.169.254/latest/meta-data"], "EC2 metadata service"),
        Opt::new("ec2", "timeout", "timeout", Number, &["10"], TIMEOUT),
        Opt::new("cfn", "metadata_url", "metadata-url", Uri, &[], "CloudFormation API"),
        Opt::new("cfn", "heat_metadata_hint", "heat-metadata-hint", Text, &["/var/lib/heat-cfntools/cfn-metadata-server"], "file that names the API if the URL is not set"),
        Opt::new("cfn", "ca_certificate", "ca_certificate", Text, &[], "certificates to trust there"),
        Opt::new("cfn", "stack_name", "stack-name", Text, &[], "the stack"),
        Opt::new("cfn", "path", "path", List, &[], "metadata to collect, RESOURCE.FIELD[.KEY…]"),
        Opt::new("cfn", "secret_access_key", "secret-access-key", Text, &[], "key to sign with; better in a file than here"),
        Opt::new("cfn", "access_key_id", "access-key-id", Text, &[], "its id"),
        Opt::new("cfn", "deployment_key", "deployment-key", List, &["deployments"], "as --deployment-key, for this collector"),
        Opt::new("cfn", "timeout", "timeout", Number, &["10"], TIMEOUT),
        Opt::new("heat_local", "path", "path", List, &["/var/lib/heat-cfntools/cfn-init-data"], "files of metadata"),
        Opt::new("local", "path", "path", List, &["/var/lib/os-collect-config/local-data"], "directories of files of metadata"),
        Opt::new("heat", "user_id", "user-id", Text, &[], USER_ID),
        Opt::new("heat", "password", "password", Text, &[], PASSWORD),
        Opt::new("heat", "project_id", "project-id", Text, &[], PROJECT_ID),
        Opt::new("heat", "auth_url", "auth-url", Uri, &[], AUTH_URL),
        Opt::new("heat", "stack_id", "stack-id", Text, &[], "the stack, NAME/ID"),
        Opt::new("heat", "resource_name", "resource-name", Text, &[], "this server's resource in the stack"),
        Opt::new("heat", "region_name", "region-name", Text, &[], REGION),
        Opt::new("request", "metadata_url", "metadata-url", Uri, &[], "where the metadata is"),
        Opt::new("request", "timeout", "timeout", Number, &["10"], TIMEOUT),
        Opt::new("keystone", "cache_dir", "cache_dir", Text, &[], "directory where tokens are kept"),
        Opt::new("keystone", "cache_ttl", "cache_ttl", Integer, &["1800"], "seconds for which they are"),
        Opt::new("zaqar", "user_id", "user-id", Text, &[], USER_ID),
        Opt::new("zaqar", "password", "password", Text, &[], PASSWORD),
        Opt::new("zaqar", "project_id", "project-id", Text, &[], PROJECT_ID),
        Opt::new("zaqar", "auth_url", "auth-url", Uri, &[], AUTH_URL),
        Opt::new("zaqar", "queue_id", "queue-id", Text, &[], "the queue"),
        Opt::new("zaqar", "region_name", "region-name", Text, &[], REGION),
        Opt::new("zaqar", "use_websockets", "use-websockets", Flag, &["false"], "ignored: Zaqar is asked by HTTP"),
        Opt::new("zaqar", "ssl_certificate_validation", "ssl-certificate-validation", Flag, &["false"], "check Zaqar's certificate"),
        Opt::new("zaqar", "ca_file", "ca-file", Text, &[], "certificates to trust there"),
    ]
};

/// Other names of options.
pub(super) const ALIASES: [(&str, &str); 4] = [
    ("--logfile", "--log-file"),
    ("--logdir", "--log-dir"),
    ("--log-config", "--log-config-append"),
    ("--log_config", "--log-config-append"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_as_they_were() {
        let find = |long: &str| OPTIONS.iter().find(|option| option.long() == long).unwrap();
        assert_eq!(find("--print").key, "print_only");
        assert_eq!(find("--print").inverse().as_deref(), Some("--noprint"));
        assert_eq!(find("--heat_local-path").variable(), "OS_HEAT_LOCAL__PATH");
        assert_eq!(find("--cfn-ca_certificate").key, "ca_certificate");
        assert_eq!(
            find("--zaqar-use-websockets").inverse().as_deref(),
            Some("--zaqar-nouse-websockets")
        );
        assert_eq!(find("--command").inverse(), None);
        let distinct: BTreeSet<String> = OPTIONS.iter().map(Opt::long).collect();
        assert_eq!(distinct.len(), OPTIONS.len());
    }
}
