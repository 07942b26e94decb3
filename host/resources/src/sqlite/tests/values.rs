//! Every value comes back as it was sent, through the database and through JSON.

use proptest::prelude::*;

use super::*;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_filter("SQLite has no NaN", |real| !real.is_nan()).prop_map(Value::Real),
        any::<String>().prop_map(Value::Text),
        Just(Value::Text("a\0b\0".to_owned())),
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Value::Blob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn values_round_trip(values in proptest::collection::vec(value(), 1..12)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            fixture.run("create table t (at integer primary key, v any) strict").await.unwrap();
            let insert = |(at, value): (usize, &Value)| Statement::new("insert into t values (?, ?)", [Value::Integer(at as i64), value.clone()]);
            let statements = values.iter().enumerate().map(insert).collect();
            fixture.store.batch(NUMBER, free(), statements).await.unwrap();
            let answer = fixture.run("select v from t order by at").await.unwrap().results.remove(0);
            for (row, sent) in answer.rows.iter().zip(&values) {
                assert_eq!(&row[0], sent);
                let json = serde_json::to_string(&row[0]).unwrap();
                assert_eq!(&serde_json::from_str::<Value>(&json).unwrap(), sent, "{json}");
            }
            assert_eq!(answer.rows.len(), values.len());
        });
    }
}
