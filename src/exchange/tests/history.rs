//! What the history of a conversation becomes for the provider that goes on with it.

use super::*;

/// A conversation with a call that another model made.
fn called(question: &str) -> Value {
    json!({
        "model": "assistant",
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "reasoning": "r", "content": null, "tool_calls": [
                {"id": "call_0", "type": "function", "extra_content": {"google": {"thought_signature": "s"}}, "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "call_0", "content": "r"},
        ],
    })
}

#[test]
fn each_candidate_gets_the_history_that_it_takes_however_long_the_body_is() {
    let provider = |dialect: &str| json!({"host": "h", "api_key": "$KEY", "dialect": dialect, "models": {"assistant": "gemini-3-pro"}});
    let providers =
        json!({"one": provider("openai"), "two": provider("mistral"), "three": provider("google")});
    for (long, room) in
        [("a", usize::MAX), (&*"long ".repeat(500_000), usize::MAX), (&*"long ".repeat(100), 0)]
    {
        let mut world = World::with(&json!({"providers": providers}));
        let body = called(long);
        let text = body.to_string();
        let read = Body::read(text.as_bytes(), Endpoint::Chat, &world.config.parameters).unwrap();
        let head = Head { path: PATH.to_owned(), complete: false, policy: None };
        let mut exchange = Exchange::new(Rc::clone(&world.config), &head, read, |_| true).unwrap();
        exchange.start(&mut world.env()).unwrap();
        exchange.keep_body(room, false);
        exchange.begin("one", || NOW).unwrap();
        let mut sent = Vec::new();
        for next in ["two", "three", ""] {
            let splices = exchange.splices();
            let new: Value = serde_json::from_slice(&splices.apply(text.as_bytes()).unwrap()).unwrap();
            assert_eq!(exchange.ask(&splices).body_len, new.to_string().len());
            sent.push(new["messages"].clone());
            if !next.is_empty() {
                assert_eq!(world.judge(&mut exchange, verdict(Outcome::Overloaded)), retry(next, 0));
            }
        }
        let mut expected = body["messages"].clone();
        let call = expected[1]["tool_calls"][0].as_object_mut().unwrap();
        let signed = call.remove("extra_content").unwrap();
        assert_eq!(sent[0], expected, "the thoughts stay, and what only Google's models read goes");
        let id = sent[1][1]["tool_calls"][0]["id"].clone();
        assert_eq!((id.as_str().unwrap().len(), &sent[1][2]["tool_call_id"]), (9, &id));
        expected[1].as_object_mut().unwrap().remove("reasoning");
        for (sent, id, extra) in [(&sent[1], id, None), (&sent[2], json!("call_0"), Some(signed))] {
            expected[1]["tool_calls"][0]["id"] = id.clone();
            expected[2]["tool_call_id"] = id;
            if let Some(extra) = extra {
                expected[1]["tool_calls"][0]["extra_content"] = extra;
            }
            assert_eq!(*sent, expected);
        }
    }
}
