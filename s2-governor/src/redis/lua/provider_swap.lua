-- provider_swap <provider> <version or empty> <verdict> (<operation> <severity> <params as a list in JSON>)?
local function verb()
  local key = P .. 'provider:' .. ARGV[5]
  local posted = call('HMGET', key, 'version', 'verdict')
  if (posted[1] or '') ~= ARGV[6] then
    return { 'conflict', posted[1] or '', posted[2] or '' }
  end
  -- A number of the fleet: it rises even if this was lost.
  local version = int(number())
  call('HSET', key, 'version', version, 'verdict', ARGV[7])
  if ARGV[8] then
    journal { component = 'provider', operation = ARGV[8], subject = ARGV[5], severity = ARGV[9],
      params = cjson.decode(ARGV[10]) }
  end
  wake('provider:' .. ARGV[5])
  return { 'ok', version }
end
