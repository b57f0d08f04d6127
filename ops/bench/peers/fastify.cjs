// Fastify 5 with ajv compiling the very schema file that the gateway loads.
// Arguments: port, schema file. Fastify's default ajv would coerce types ("1" for 1) and drop
// unknown members; this one judges and changes nothing, as every other server here does.
'use strict'
const fs = require('fs')
const fastify = require('fastify')({ logger: false })
const Ajv2020 = require('ajv/dist/2020')

const [port, schemaFile] = process.argv.slice(2)
const body = JSON.parse(fs.readFileSync(schemaFile, 'utf8'))
const ajv = new Ajv2020({ strict: false, validateFormats: false, logger: false })

fastify.setValidatorCompiler(({ schema }) => ajv.compile(schema))
fastify.post('/metrics', { schema: { body } }, (request, reply) => {
  reply.code(202).send({ accepted: 1 })
})
fastify.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 })
