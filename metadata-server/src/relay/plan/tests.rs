use super::*;

const SIGNED: i64 = 1_795_319_919;
const CFN: &str = "http://heat:8000/v1/signal/x?Timestamp=2026-11-22T03%3A58%3A39Z&Signature=s";

fn input(name: &str, value: impl Into<Value>) -> Value {
    json!({"name": name, "type": "String", "value": value.into()})
}

fn account() -> Vec<Value> {
    [
        ("deploy_auth_url", "http://keystone/v3"),
        ("deploy_user_id", "u"),
        ("deploy_password", "secret"),
        ("deploy_project_id", "p"),
    ]
    .map(|(name, value)| input(name, value))
    .to_vec()
}

fn common(transport: &str) -> Vec<Value> {
    vec![
        input("deploy_stack_id", "s/1"),
        input("deploy_resource_name", "r"),
        input("deploy_signal_transport", transport),
    ]
}

fn cfn() -> Vec<Value> {
    let mut inputs = common("CFN_SIGNAL");
    inputs.extend([input("deploy_signal_id", CFN), input("deploy_signal_verb", "POST")]);
    inputs
}

/// As Heat writes it for servers that get their metadata from Zaqar.
fn collect() -> Value {
    json!({
        "collectors": ["zaqar", "local"],
        "zaqar": {"auth_url": "http://keystone/v3", "user_id": "server", "password": "secret", "project_id": "p", "queue_id": "q"},
    })
}

fn document(inputs: &[Value], more: Value) -> Value {
    let mut document = json!({"deployments": [{"id": "c", "inputs": inputs}]});
    for (key, value) in more.as_object().unwrap() {
        document[key.as_str()] = value.clone();
    }
    document
}

fn planned(document: &Value, withdrawn: Option<&[Value]>) -> Plan {
    let withdrawn = withdrawn.map(|inputs| Withdrawn { at_unix_ms: 1, inputs: json!(inputs) });
    let bytes = document.to_string();
    plan("c", (5, 5), in_force(&bytes), withdrawn, SIGNED + 60)
}

fn in_force(document: &str) -> Option<InForce<'_>> {
    Some(InForce { body: document.as_bytes(), since_unix_s: SIGNED - DOUBTED_S })
}

fn of(inputs: &[Value]) -> Plan {
    planned(&document(inputs, json!({})), None)
}

fn ways(plan: Plan) -> Vec<String> {
    match plan {
        Plan::Send { ways, .. } => ways.iter().map(ToString::to_string).collect(),
        settled => panic!("{settled:?}"),
    }
}

fn unwanted(plan: Plan) -> String {
    match plan {
        Plan::Settled(Verdict::Unwanted { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_transport_goes_its_way() {
    let temporary = "http://swift/v1/a/c/o?temp_url_sig=s&temp_url_expires=9999999999";
    let mut put = common("TEMP_URL_SIGNAL");
    put.extend([input("deploy_signal_id", temporary), input("deploy_signal_verb", "PUT")]);
    let heat = [common("HEAT_SIGNAL"), account()].concat();
    let zaqar = [common("ZAQAR_SIGNAL"), account(), vec![input("deploy_queue_id", "q")]].concat();
    for (inputs, way) in [
        (cfn(), "http://heat:8000/v1/signal/x via POST"),
        (put, "http://swift/v1/a/c/o via PUT"),
        (heat, "resource r of stack s/1 via Heat"),
        (zaqar, "queue q via Zaqar"),
    ] {
        assert_eq!(ways(of(&inputs)), [way]);
    }
    assert_eq!(unwanted(of(&common("NO_SIGNAL"))), "nobody wants a signal");
    assert_eq!(unwanted(of(&[])), "nobody wants a signal");
}

#[test]
fn inputs_of_another_transport_than_the_one_that_heat_names_choose_nothing() {
    let evil = [
        input("deploy_signal_id", "http://169.254.169.254/"),
        input("deploy_auth_url", "http://evil"),
    ];
    let with = |inputs: Vec<Value>| [evil.to_vec(), inputs].concat();
    assert_eq!(unwanted(of(&with(common("NO_SIGNAL")))), "nobody wants a signal");
    let heat = [common("HEAT_SIGNAL"), account()].concat();
    let Plan::Send { ways: by_heat, .. } = of(&with(heat)) else { panic!() };
    assert!(
        matches!(&by_heat[..], [Transport::Heat { account, .. }] if account.auth_url == "http://keystone/v3")
    );
    assert_eq!(
        ways(of(&with(cfn()))),
        ["http://heat:8000/v1/signal/x via POST"],
        "Heat's come last"
    );
    // A section that Heat did not ask for is the author's.
    let mut collect = collect();
    collect["heat"] =
        json!({"auth_url": "http://evil", "user_id": "u", "password": "p", "project_id": "p"});
    let document = document(&cfn(), json!({"os-collect-config": collect}));
    let Plan::Send { ways, .. } = planned(&document, None) else { panic!() };
    assert!(matches!(&ways[1], Transport::Heat { account, .. } if account.user_id == "server"));
}

#[test]
fn a_url_that_is_too_old_comes_second_where_there_is_another_way() {
    let with = document(&cfn(), json!({"os-collect-config": collect()})).to_string();
    let without = document(&cfn(), json!({})).to_string();
    let at =
        |document: &str, age: i64| ways(plan("c", (1, 1), in_force(document), None, SIGNED + age));
    let (url, heat) = ("http://heat:8000/v1/signal/x via POST", "resource r of stack s/1 via Heat");
    assert_eq!(at(&with, 60), [url, heat]);
    assert_eq!(at(&with, 901), [heat, url]);
    assert_eq!(at(&without, 901), [url], "auth_ttl may be longer than by default");
}

#[test]
fn what_has_left_the_document_is_not_signalled_unless_heat_withdraws_it_at_once() {
    let empty = json!({"deployments": []});
    assert!(unwanted(planned(&empty, None)).contains("does not list"));
    let Plan::Send { is_withdrawn: true, .. } = planned(&empty, Some(&cfn())) else { panic!() };
    let Plan::Send { is_withdrawn: false, .. } = of(&cfn()) else { panic!() };
    let reason = unwanted(plan("c", (5, 6), in_force("{}"), None, 0));
    assert_eq!(reason, "result #6, of a later run, is signalled");
    assert_eq!(unwanted(plan("c", (5, 5), None, None, 0)), "the agent has no document");
}

#[test]
fn a_result_waits_for_the_right_document_while_the_one_in_force_may_be_in_the_wrong_order() {
    let since = |age: i64| {
        let document = InForce { body: br#"{"deployments": []}"#, since_unix_s: SIGNED - age };
        plan("c", (5, 5), Some(document), None, SIGNED)
    };
    for age in [0, DOUBTED_S - 1] {
        let Plan::Settled(Verdict::Later { reason }) = since(age) else { panic!("{age}") };
        assert!(reason.contains("does not list"), "{reason}");
    }
    // A document from the future is a clock's mistake.
    for age in [DOUBTED_S, -1] {
        assert!(unwanted(since(age)).contains("does not list"), "{age}");
    }
}

#[test]
fn a_document_can_say_that_its_agent_is_not_signalled_for() {
    let off = document(&cfn(), json!({"metadata-server": {"signal": "off"}}));
    assert!(unwanted(planned(&off, None)).contains("says so"));
}

#[test]
fn what_cannot_be_used_is_refused_without_a_secret() {
    let no_user: Vec<_> = [common("HEAT_SIGNAL"), account()]
        .concat()
        .into_iter()
        .filter(|input| input["name"] != "deploy_user_id")
        .collect();
    for (inputs, part) in [
        (no_user, "input deploy_user_id is missing or empty"),
        (common("CFN_SIGNAL"), "of transport CFN_SIGNAL, whose inputs are missing"),
        ([common("CFN_SIGNAL"), vec![input("deploy_signal_id", 5)]].concat(), "is no URL"),
    ] {
        let Plan::Settled(Verdict::Refused { reason, .. }) = of(&inputs) else { panic!("{part}") };
        assert!(reason.contains(part) && !reason.contains("secret"), "{reason}");
    }
}

#[test]
fn answers_are_told_apart() {
    let fresh = Transport::Presigned { url: CFN.into(), put: false };
    let Plan::Send { ways, .. } = of(&[common("HEAT_SIGNAL"), account()].concat()) else {
        panic!()
    };
    let heat = ways[0].clone();
    let mut table = String::new();
    for (name, way, age) in
        [("fresh URL", &fresh, 60), ("old URL", &fresh, 1_000), ("Heat", &heat, 60)]
    {
        for is_withdrawn in [false, true] {
            for status in
                [None, Some(302), Some(400), Some(401), Some(403), Some(404), Some(409), Some(410)]
            {
                let told = [0, 1].map(|attempts| {
                    match refusal(way, is_withdrawn, attempts, status, "r".into(), SIGNED + age) {
                        Verdict::TooLate { .. } => "too late",
                        Verdict::Refused { .. } => "refused",
                        Verdict::Later { .. } => "later",
                        other => panic!("{other:?}"),
                    }
                });
                let status = status.map_or_else(|| "-".into(), |status| status.to_string());
                let which = if is_withdrawn { "withdrawn" } else { "listed" };
                table += &format!("{name}, {which}: {status} {}, then {}\n", told[0], told[1]);
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn heat_is_told_what_heat_config_tells() {
    let mut result: DeploymentResult = serde_json::from_value(json!({
        "config_id": "c", "name": "n", "group": "script", "document_version": 1, "status": "COMPLETE",
        "deploy_stdout": "o", "deploy_stderr": "e", "deploy_status_code": 0, "outputs": {"result": [1]},
        "started_unix_ms": 1, "finished_unix_ms": 2,
    }))
    .unwrap();
    let told =
        json!({"result": [1], "deploy_stdout": "o", "deploy_stderr": "e", "deploy_status_code": 0});
    assert_eq!(signal_data(&result), told);
    result.outputs.insert("deploy_status_code".into(), json!(0));
    result.deploy_status_code = 7;
    assert_eq!(signal_data(&result)["deploy_status_code"], 7, "no output stands in for it");
}
