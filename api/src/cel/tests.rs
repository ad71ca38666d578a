use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::*;

fn object_type() -> Type {
    let field = |name: &str, kind: Type| (name.to_string(), (name.to_string(), kind));
    let fields = [
        field("replicas", Type::Int),
        field("name", Type::Text(63)),
        field("items", Type::List(Type::TEXT.into(), 10)),
        field("labels", Type::map(Type::TEXT)),
        field("at", Type::Timestamp),
        field("any", Type::Dyn),
    ];
    Type::Object(ObjectType { name: "object".into(), fields: fields.into() }.into())
}

fn run(source: &str, json: &Json) -> Result<String, String> {
    let kind = object_type();
    let program = compile(source, &[("self", kind.clone())])?;
    let mut spent = 0;
    let value = program.run(&[("self", Value::from_json(json, &kind))], CALL_LIMIT, &mut spent);
    value.map(|value| format!("{value:?}")).map_err(|failure| failure.to_string())
}

fn holds(source: &str) -> Result<bool, String> {
    let json = json!({"replicas": 3, "name": "web", "items": ["a", "b"], "labels": {"x": "1"},
        "at": "2026-01-02T03:04:05Z", "any": {"deep": [1, "two"]}});
    run(source, &json).map(|shown| shown == "Bool(true)")
}

#[test]
fn expressions_that_hold() {
    let sources = [
        "self.replicas > 2 && self.name == 'web'",
        "self.replicas + 1 == 4 && 7 / 2 == 3 && 7 % 4 == 3 && -self.replicas == -3",
        "has(self.name) && !has(self.labels.y)",
        "self.items.all(x, x.size() == 1) && self.items.exists(x, x == 'b') && self.items.exists_one(x, x == 'a')",
        "self.items.map(x, x + '!') == ['a!', 'b!'] && self.items.filter(x, x != 'a') == ['b']",
        "'x' in self.labels && self.labels['x'] == '1' && self.labels.all(k, self.labels[k] != '')",
        "self.labels.all(k, v, k == 'x' && v == '1')",
        "self.any.deep[1] == 'two' && size(self.any.deep) == 2",
        "self.at > timestamp('2025-01-01T00:00:00Z') && self.at.getFullYear() == 2026",
        "duration('1h30m').getMinutes() == 90 && self.at + duration('1s') > self.at",
        "self.name.matches('^w.b$') && self.name.startsWith('w') && 'ABC'.lowerAscii() == 'abc'",
        "'a,b,c'.split(',').size() == 3 && ['a', 'b'].join('-') == 'a-b' && 'hello'.substring(1, 3) == 'el'",
        "'abcabc'.indexOf('c') == 2 && 'abcabc'.lastIndexOf('a') == 3 && 'abc'.charAt(1) == 'b'",
        "[1, 2, 3].sum() == 6 && [1, 3, 2].max() == 3 && [1, 2].isSorted() && ![2, 1].isSorted()",
        "sets.contains(['a', 'b'], ['a']) && sets.equivalent([1, 2], [2, 1]) && sets.intersects([1], [1, 2])",
        "quantity('1Gi').isGreaterThan(quantity('500Mi')) && isQuantity('10m') && !isQuantity('x')",
        "quantity('2').add(quantity('3')).asInteger() == 5 && quantity('50k').compareTo(quantity('50000')) == 0",
        "ip('192.168.0.1').family() == 4 && isIP('::1') && !isIP('1.2.3') && ip('127.0.0.1').isLoopback()",
        "ip.isCanonical('127.0.0.1') && !ip.isCanonical('2001:DB8::ABCD')",
        "'äbcäbc'.indexOf('bc', 2) == 4 && 'äbcäbc'.lastIndexOf('bc', 3) == 1 && 'abc'.indexOf('') == 0",
        "'abc'.split('') == ['a', 'b', 'c'] && 'abc'.split('', 2) == ['a', 'bc'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'abab'.replace('ab', 'x', 1) == 'xab' && 'abab'.replace('ab', 'x') == 'xx' && 'ab'.charAt(2) == ''",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.0.0.0/8').prefixLength() == 8",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.1.2.3/8').ip() == ip('10.1.2.3') && string(cidr('10.1.2.3/8')) == '10.1.2.3/8'",
        "!cidr('::/0').containsIP('10.0.0.1') && !isCIDR('10.0.0.0/08') && !isCIDR('10.0.0.0/+8') && !isCIDR('::ffff:10.0.0.0/104')",
        "url('https://example.com:80/a?b=c').getHost() == 'example.com:80' && url('https://example.com:80/a').getPort() == '80' && isURL('https://a.b/') && url('http://x/y?k=1').getQuery()['k'] == ['1']",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('1.0.0-alpha.1') && !isSemver('v1')",
        "!format.dns1123Label().validate('web').hasValue() && format.named('dns1123Label').value().validate('_').hasValue()",
        "'abc 123 def 456'.find('[0-9]+') == '123' && 'abc 123 def 456'.findAll('[0-9]+') == ['123', '456']",
        "self.?name.orValue('none') == 'web' && self.any.?nope.orValue(1) == 1 && !self.any.?nope.hasValue()",
        "optional.of(1).optMap(x, x + 1).value() == 2 && optional.none().or(optional.of(3)).value() == 3",
        "cel.bind(x, self.replicas * 2, x + x == 12)",
        "(self.replicas > 5 ? 'many' : 'few') == 'few' && type(1) == int && string(5) == '5' && int('5') == 5",
        "false && self.any.nope == 1 || true",
        "'%s has %d'.format([self.name, self.replicas]) == 'web has 3'",
        "1.5 + 1.5 == 3.0 && 1 < 2.5 && [1, 2][?5].orValue(7) == 7 && {'a': 1}.a == 1",
        "dyn(self.replicas) == 3 && b'abc' == bytes('abc') && r'\\d' == '\\\\d'",
        "[3, 1, 2].sort() == [1, 2, 3] && [1, 1, 2].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2]",
    ];
    for source in sources {
        assert_eq!(holds(source), Ok(true), "{source}");
    }
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let cases = [
        ("self.nope == 1", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope == 1\n | ....^"),
        ("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^"),
        (
            "self.replicas == 'x'",
            "ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'\n | self.replicas == 'x'\n | ..............^",
        ),
        (
            "self.name.frobnicate()",
            "ERROR: <input>:1:10: undeclared reference to 'frobnicate' (in container '')\n | self.name.frobnicate()\n | .........^",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(holds(source).unwrap_err(), expected);
    }
    for source in
        ["self =", "self..x", "1 +", "'abc", "(1", "[1, 2", "a ? b", "1 = 2", "\"\\q\"", "has(self)", ""]
    {
        let error = holds(source).unwrap_err();
        assert!(error.contains("Syntax error") || error.contains("invalid argument"), "{source}: {error}");
    }
    let nested = "(".repeat(10_000);
    assert!(holds(&nested).unwrap_err().contains("expression recursion limit exceeded: 250"));
    let dots = format!("{}x", ".".repeat(50_000));
    assert!(holds(&dots).unwrap_err().contains("Syntax error"));
}

#[test]
fn failures_have_upstreams_words() {
    let cases = [
        ("self.labels['nope'] == '1'", "no such key: nope"),
        ("self.items[5] == 'a'", "index out of bounds: 5"),
        ("1 / (self.replicas - 3) == 1", "division by zero"),
        ("9223372036854775807 + self.replicas == 1", "integer overflow"),
        ("self.any + 1 == 2", "no such overload"),
    ];
    for (source, expected) in cases {
        assert_eq!(holds(source), Err(expected.to_string()), "{source}");
    }
}

#[test]
fn what_costs_too_much_is_stopped() {
    let json = json!({"replicas": 1, "items": vec!["a"; 1000]});
    let error = run("self.items.all(a, self.items.all(b, self.items.all(c, a == c && b == c)))", &json);
    assert_eq!(error, Err("operation cancelled: actual cost limit exceeded".into()));
}

#[test]
fn cost_is_known_beforehand_from_sizes() {
    let cost = |source: &str| {
        let variables = [("self", object_type())];
        compile(source, &variables).unwrap().cost(&variables)
    };
    assert_eq!(cost("self.replicas > 1"), 3);
    // Ten items at most.
    assert!(cost("self.items.all(x, x == 'a')") < 100);
    // No bound but the size of a request.
    assert!(cost("self.labels.all(k, self.labels.all(l, k == l))") > 1_000_000_000);
}

/// A stack half as large as that of the threads on which requests are served.
fn on_a_small_stack<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    std::thread::Builder::new().stack_size(1 << 20).spawn(body).unwrap().join().unwrap()
}

#[test]
fn no_expression_is_too_deep_for_the_stack() {
    let around = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let shapes: [fn(&dyn Fn(&str, &str, &str, usize) -> String, usize) -> String; 7] = [
        |around, times| around("(", "1", ")", times) + " == 1",
        |around, times| around("[1].all(x, ", "true", ")", times),
        |around, times| around("[", "1", "]", times) + " != []",
        |around, times| around("!", "true", "", times * 2),
        |around, times| around("cel.bind(x, 1, ", "true", ")", times),
        |around, times| around("true ? true : ", "true", "", times),
        |around, times| around("", "'a'", " + 'a'", times) + " != ''",
    ];
    for shape in shapes {
        // As deep as it goes, it runs; deeper, it is refused.
        let fine = (1..250).rev().find_map(|times| {
            let source = shape(&around, times);
            on_a_small_stack(move || holds(&source).ok())
        });
        assert_eq!(fine, Some(true), "{}", shape(&around, 2));
        let source = shape(&around, 1_000);
        let error = on_a_small_stack(move || holds(&source)).unwrap_err();
        assert!(error.contains("expression recursion limit exceeded: 250"), "{error}");
    }
    // Chains inside brackets inside chains are as high as they are together.
    let source = around("(", "1", &format!("{})", " + 1".repeat(90)), 90);
    let error = on_a_small_stack(move || holds(&source)).unwrap_err();
    assert!(error.contains("expression recursion limit exceeded: 250"), "{error}");
}

#[test]
fn what_takes_too_much_memory_is_stopped() {
    let json = json!({"name": "x".repeat(100_000), "items": vec!["a"; 1000]});
    let sources = [
        "self.name.replace('x', self.name) == ''",
        "self.items.join(self.name) == ''",
        "self.items.map(x, self.name + x).join() == ''",
        "'%s%s%s%s%s%s%s%s'.format([1, 2, 3, 4, 5, 6, 7, 8].map(x, self.items.map(y, self.name))) == ''",
        "self.items.map(x, self.name.split('')).flatten() == []",
        "self.items.map(x, self.items.map(y, self.items)).flatten().flatten() == []",
    ];
    for source in sources {
        assert_eq!(
            run(source, &json),
            Err("operation cancelled: actual cost limit exceeded".into()),
            "{source}"
        );
    }
    // A copy of text takes no room.
    let shared = "cel.bind(t, self.name + 'x', self.items.map(x, t)).size() == 1000";
    assert_eq!(run(shared, &json), Ok("Bool(true)".into()));
}

#[test]
fn what_is_compared_costs_what_is_inside_of_it() {
    let json = json!({"items": vec!["a"; 1000], "any": vec![vec![1; 1000]; 100]});
    let error = run("self.items.all(x, self.items.all(y, self.any == self.any))", &json);
    assert_eq!(error, Err("operation cancelled: actual cost limit exceeded".into()));
}

#[test]
fn patterns_are_compiled_with_the_expression_or_have_their_price() {
    assert!(holds("'a'.matches('(')").unwrap_err().contains("invalid matches argument"));
    assert_eq!(holds("'aab'.matches('^a{2}b$') && 'ab'.matches('a' + 'b')"), Ok(true));
    let json = json!({"items": vec!["a"; 10_000]});
    let error = run("self.items.transformList(i, x, i).all(i, 'a'.matches(string(i) + '|a'))", &json);
    assert!(error.is_err(), "{error:?}");
    let large = run("'a'.matches('(a{100}){100}{100}' + self.name)", &json!({"name": ""}));
    assert!(large.unwrap_err().contains("error parsing regexp"));
}

#[test]
fn what_is_told_of_mistakes_has_an_end() {
    let many = format!("[{}]", vec!["nope"; 10_000].join(", "));
    let told = holds(&many).unwrap_err();
    assert!(told.len() < 2 * (1 << 20), "{}", told.len());
    assert!(told.ends_with(" more errors were truncated"));
    let long = holds(&"x".repeat(200_000)).unwrap_err();
    assert!(long.contains("expression code point size exceeds limit: size: 200000, limit 100000"));
}

#[test]
fn too_many_patterns_are_refused_before_any_is_compiled() {
    let many = |pattern: &str, count: usize| vec![format!("'a'.matches('{pattern}')"); count].join(" || ");
    assert_eq!(holds(&many("a", 100)), Ok(true));
    let error = holds(&many("(", 101)).unwrap_err();
    assert!(error.contains("at most 100 constant patterns, this one has 101"), "{error}");
    let error = holds("'a'.matches('(a{100}){100}')").unwrap_err();
    assert!(error.contains("invalid matches argument"), "{error}");
}

#[test]
fn a_type_does_not_grow_with_every_use_as_a_key() {
    let nested = (0..60).fold("true".to_string(), |body, _| format!("cel.bind(x, {{x: x}}, {body})"));
    let error = holds(&format!("cel.bind(x, [1], {nested})")).unwrap_err();
    assert!(error.contains("unsupported key type: list\n"), "{error}");
    let error = holds("{{1: 2}: 1}.size() == 1").unwrap_err();
    assert!(error.contains("unsupported key type: map\n"), "{error}");
    assert!(holds("{null: 1}.size() == 1").unwrap_err().contains("unsupported key type: null"));
    assert_eq!(holds("{1: 1, 'a': 2, true: 3, dyn(2u): 4}.size() == 4"), Ok(true));
}

#[test]
fn what_has_another_size_is_not_looked_at() {
    let json = json!({"any": vec![vec![1; 1000]; 1000], "items": vec!["a"; 100]});
    // A million values are in there.
    assert_eq!(run("self.items.all(x, self.any != [1])", &json), Ok("Bool(true)".into()));
    assert_eq!(run("self.items.all(x, !sets.contains([], self.any))", &json), Ok("Bool(true)".into()));
    assert_eq!(run("self.items.all(x, !sets.intersects(self.any, []))", &json), Ok("Bool(true)".into()));
    assert_eq!(run("sets.equivalent([], []) && !sets.equivalent([], [1])", &json), Ok("Bool(true)".into()));
    assert!(run("sets.contains(self.any, self.any)", &json).is_err());
    assert_eq!(
        holds("{'a': 1, 2: [3]} == {2: [3], 'a': 1} && {'a': 1} != {'b': 1} && [[1]] != [[2]]"),
        Ok(true)
    );
    assert_eq!(
        holds("self.any == {'deep': [1, 'two']} && self.labels != {} && self.any != self.items"),
        Ok(true)
    );
}

#[test]
fn the_least_of_several_measures_is_found_without_the_others() {
    let (small, large) = (Value::list(vec![Value::Null; 100]), Value::list(vec![Value::Null; 1 << 20]));
    let looked = std::cell::Cell::new(0);
    let least = functions::least(1 << 19, |bound| {
        let weights = [small.weight(bound), large.weight(bound)];
        looked.set(looked.get() + weights.iter().sum::<u64>());
        weights[0].min(weights[1])
    });
    assert_eq!(least, 101);
    assert!(looked.get() < 1_000, "{}", looked.get());
    assert_eq!(functions::least(1 << 19, |bound| large.weight(bound)), 1 << 19);
}

#[test]
fn keys_have_a_weight_too() {
    let json = json!({"a".repeat(6400): 1});
    assert_eq!(Value::from_json(&json, &Type::Dyn).weight(1_000), 102);
    let map = Value::Map(Arc::new([(value::Key::Text("a".repeat(6400)), Value::Int(1))].into()));
    assert_eq!(map.weight(1_000), 102);
}

#[test]
fn a_loop_pays_for_the_steps_it_takes_and_no_others() {
    let json = json!({"items": vec!["a"; 100_000], "labels": {"x": "1", "y": "2"}});
    // The inner loop ends with its first step; all steps of each would be two thousand million.
    let source = "self.items.filter(x, true).slice(0, 20000).all(x, self.items.exists(y, y == 'a'))";
    let started = std::time::Instant::now();
    assert_eq!(run(source, &json), Ok("Bool(true)".into()));
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    let source = "self.labels.exists(k, k == 'y') && self.labels.transformMap(k, v, v + k) == {'x': '1x', 'y': '2y'} \
        && {'a': 1}.all(k, v, k == 'a' && v == 1) && {'a': 1}.map(k, k) == ['a'] \
        && [5, 6].transformList(i, v, i + v) == [5, 7] && [3, 1, 2].sortBy(x, -x) == [3, 2, 1]";
    assert_eq!(run(source, &json), Ok("Bool(true)".into()));
    assert_eq!(run("dyn(1).all(x, true)", &json), Err("no such overload".into()));
}

fn lazily(programs: &[(&str, &str)], source: &str) -> Result<String, Failure> {
    let compiled = |source: &str| compile(source, &[("variables", Type::Dyn)]).unwrap();
    let programs: Vec<(String, Program)> =
        programs.iter().map(|(name, source)| (name.to_string(), compiled(source))).collect();
    let lazy = Rc::new(Lazy::new(programs.into(), Vec::new()));
    let result = compiled(source).run_lazily(&lazy, CALL_LIMIT, &mut 0);
    result.map(|value| format!("{value:?}"))
}

#[test]
fn variables_that_go_in_a_circle_come_to_an_end() {
    let circle = [("a", "variables.b"), ("b", "dyn(variables).a")];
    let failure = lazily(&circle, "variables.a").unwrap_err().to_string();
    assert!(failure.contains("a depends on itself"), "{failure}");
    assert_eq!(lazily(&circle, "has(variables.a) && !has(variables.c)"), Ok("Bool(true)".into()));
}

#[test]
fn variables_are_passed_on_by_name_only() {
    let passes = |source: &str| {
        compile(source, &[("variables", Type::Dyn), ("a", Type::Dyn)]).unwrap().passes_variables_on()
    };
    for source in ["variables.a + variables.b", "has(variables.a)", "variables.?a.hasValue()", "a.variables"]
    {
        assert!(!passes(source), "{source}");
    }
    for source in ["dyn(variables).a", "cel.bind(v, variables, v.a)", "[variables]", "variables['a']"] {
        assert!(passes(source), "{source}");
    }
}

#[test]
fn variables_share_the_memory_of_an_evaluation() {
    let text = "x".repeat(30_000);
    let source =
        format!("[1, 2, 3].map(i, ['{text}'].map(t, 'y'.replace('y', t)).join().split('')).flatten()");
    let names: Vec<String> = (0..40).map(|index| format!("v{index}")).collect();
    let programs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), source.as_str())).collect();
    assert!(lazily(&programs, "variables.v0.size() == 90000").is_ok());
    let compiled = |source: &str| compile(source, &[("variables", Type::Dyn)]).unwrap();
    let programs = programs.iter().map(|(name, source)| (name.to_string(), compiled(source))).collect();
    let lazy = Rc::new(Lazy::new(programs, Vec::new()));
    let runs = names.iter().map(|name| {
        let program = compiled(&format!("variables.{name}.size()"));
        program.run_lazily(&lazy, CALL_LIMIT, &mut 0).map(drop)
    });
    let results: Vec<Result<(), Failure>> = runs.collect();
    assert_eq!(results[0], Ok(()));
    assert_eq!(results[39], Err(Failure::TooExpensive));
}
