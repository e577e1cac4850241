-- provider_note <provider> <every> <operation> <severity> <params as a list in JSON>: answers when to come back, if it is too
-- early.
local function verb()
  local key = P .. 'provider:' .. ARGV[5]
  local next_at = tonumber(call('HGET', key, 'noted') or 0) + tonumber(ARGV[6])
  if next_at > now then
    return { 'early', int(next_at) }
  end
  call('HSET', key, 'noted', int(now))
  journal { component = 'provider', operation = ARGV[7], subject = ARGV[5], severity = ARGV[8],
    params = cjson.decode(ARGV[9]) }
  return { 'ok' }
end
