import psycopg
def test_pg(postgres_url, postgres, nats_address):
    u = postgres_url.replace("postgresql+psycopg","postgresql")
    assert psycopg.connect(u).execute("select version()").fetchone()
    print(u, nats_address)
    postgres.end(); postgres.start()
