-- provider_read <provider>: version and verdict, each empty if there is none.
local function verb()
  local posted = call('HMGET', P .. 'provider:' .. ARGV[5], 'version', 'verdict')
  return { 'ok', posted[1] or '', posted[2] or '' }
end
