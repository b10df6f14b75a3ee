// What node-postgres does with an ordinary connection string.
// Arguments: the folder of its packages, port, server name, CA file, certificate file, key file, password.
const [modules, port, name, ca, certificate, key, password] = process.argv.slice(2);
const dns = require('dns');
const own = dns.lookup;
// In place of a DNS record.
dns.lookup = (host, options, done) => own(host === name ? '127.0.0.1' : host, options, done);
const { Pool } = require(modules + '/pg');
const files = `sslmode=verify-full&sslrootcert=${ca}&sslcert=${certificate}&sslkey=${key}`;
const pool = new Pool({ connectionString: `postgresql://postgres:${password}@${name}:${port}/billing?${files}`, max: 16 });
(async () => {
  const rows = await Promise.all([...Array(200).keys()].map((n) => pool.query('select $1::int as n', [n])));
  rows.forEach((answer, n) => { if (answer.rows[0].n !== n) throw new Error(`${n}`); });
  await pool.end();
  console.log('done', require(modules + '/pg/package.json').version);
})().catch((error) => { console.error(error); process.exit(1); });
