// amqplib on Node.js: consume, hop and publish, as the Python entries do them.
//
// hop: a message is acknowledged in the callback of its confirm. publish: BENCH_WINDOW messages wait for their confirm at
// once. The ledger is that of benchmarks/ledger.py, in the folder BENCH_LEDGER.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const amqplib = require("amqplib");

const job = JSON.parse(process.env.BENCH_JOB);
const WINDOW = Number(process.env.BENCH_WINDOW);
const PERSISTENT = { persistent: true, contentType: "application/json" };

const ledger = {
  count: 0,
  sum: 0,
  began: 0,
  cpu: null,
  begin() {
    this.cpu = process.cpuUsage();
    this.began = seconds();
  },
  note(number) {
    if (!this.began) this.begin();
    this.count += 1;
    this.sum += number;
    if (this.count >= job.count) this.write();
  },
  write() {
    const ended = seconds();
    const { user, system } = process.cpuUsage(this.cpu);
    const account = { count: this.count, sum: this.sum, began: this.began, ended, cpu_s: (user + system) / 1e6 };
    const file = path.join(process.env.BENCH_LEDGER, `ledger-${process.pid}.json`);
    fs.writeFileSync(`${file}.part`, JSON.stringify(account));
    fs.renameSync(`${file}.part`, file);
  },
};

function seconds() {
  return Number(process.hrtime.bigint()) / 1e9;
}

function body(number) {
  return { number, customer: "Ada Lovelace", article: "analytical engine", quantity: 3, urgent: true };
}

async function work(connection) {
  const channel = await connection.createConfirmChannel();
  await channel.prefetch(job.prefetch);
  await channel.consume(job.source, (message) => {
    const payload = JSON.parse(message.content);
    ledger.note(payload.number);
    if (job.work !== "hop") {
      channel.ack(message);
      return;
    }
    channel.sendToQueue(job.target, Buffer.from(JSON.stringify(payload)), PERSISTENT, (error) => {
      if (error) throw error;
      channel.ack(message);
    });
  });
  await new Promise((resolve) => process.once("SIGTERM", resolve));
}

async function publish(connection) {
  const channel = await connection.createConfirmChannel();
  let sent = 0;
  ledger.begin();
  await new Promise((resolve, reject) => {
    const send = () => {
      const number = sent++;
      channel.sendToQueue(job.target, Buffer.from(JSON.stringify(body(number))), PERSISTENT, (error) => {
        if (error) return reject(error);
        ledger.note(number);
        if (sent < job.count) send();
        else if (ledger.count >= job.count) resolve();
      });
    };
    for (let open = 0; open < WINDOW && sent < job.count; open++) send();
  });
}

async function main() {
  const connection = await amqplib.connect(job.url);
  await (job.work === "publish" ? publish(connection) : work(connection));
  await connection.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
