//! How long it takes from Heat to the hook. Not a test: prints figures.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::cloud::template;
use crate::stack::Stack;
use crate::world::{World, queue};

const UPDATES: usize = 30;

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, largest {:.1} ms, of {}",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}

/// How Heat brings its document.
#[derive(Clone, Copy)]
enum Way {
    /// As a message, with a token that it got for this one push.
    Message,
    /// By a URL that it signed when it made the server: nobody is asked.
    TemporaryUrl,
}

#[test]
#[ignore = "measures, and takes minutes"]
fn from_an_update_of_the_stack_to_the_hook_and_back() {
    measure("ZAQAR_MESSAGE", Way::Message, &[]);
}

/// Heat signs in for each push, so each comes with a token that nobody has seen: what is left without asking
/// Keystone is ours.
#[test]
#[ignore = "measures, and takes minutes"]
fn the_same_without_asking_keystone() {
    measure("ZAQAR_MESSAGE, any token", Way::Message, &["--zaqar-any-token", "true"]);
}

#[test]
#[ignore = "measures, and takes minutes"]
fn the_same_by_a_temporary_url() {
    measure("POLL_TEMP_URL", Way::TemporaryUrl, &["--swift-roles", "member"]);
}

fn measure(how: &str, way: Way, flags: &[&str]) {
    let world = World::start_with(flags);
    // The hook says when it began.
    let text = template("script").replace("echo \"warning text\" >&2", "date +%s%N >&2");
    let transport = match way {
        Way::Message => "ZAQAR_MESSAGE",
        Way::TemporaryUrl => "POLL_TEMP_URL",
    };
    let mut stack = Stack::create(&world.cloud, "latency", &text, &json!({"transport": transport}));
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    stack.completed("CREATE");
    let came = || match way {
        Way::Message => world.front.posts(queue(&config)),
        Way::TemporaryUrl => world.front.puts(),
    };
    let (mut to_hook, mut update_to_hook, mut update_to_complete) = (vec![], vec![], vec![]);
    let mut keystone = vec![];
    for number in 0..UPDATES {
        let pushes = came().len();
        let (asked, began) = (SystemTime::now(), Instant::now());
        stack.update(&json!({"greeting": format!("g{number}")}));
        stack.completed("UPDATE");
        update_to_complete.push(began.elapsed());
        let result = world.server.results("vm").pop().unwrap();
        let ns: u64 = result["result"]["deploy_stderr"].as_str().unwrap().trim().parse().unwrap();
        let hook = UNIX_EPOCH + Duration::from_nanos(ns);
        // The first push of the update is the one that brings the new config.
        to_hook.push(hook.duration_since(came()[pushes].at).unwrap());
        update_to_hook.push(hook.duration_since(asked).unwrap());
        keystone.push(world.cloud.time_of_a_question_about_a_new_token());
    }
    println!("{how}:");
    show("from Heat's request for the push to the hook's start", to_hook);
    show("Keystone's answer about a token that it has just made", keystone);
    show("from the request to update the stack to the hook's start", update_to_hook);
    show("from the request to update the stack to UPDATE_COMPLETE", update_to_complete);
}
