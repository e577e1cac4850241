-- pending <after> <limit>: number and escalation of each, about 4 MiB of them.
local function verb()
  local ids = call('ZRANGEBYSCORE', P .. 'inbox', '(' .. ARGV[5], '+inf', 'LIMIT', 0, ARGV[6])
  local answers, bytes = {}, 0
  for _, id in ipairs(ids) do
    local packed = call('HGET', P .. 'escalation', id)
    if packed then
      bytes = bytes + #packed
      if bytes > 4194304 and #answers > 0 then
        break
      end
      answers[#answers + 1] = { tonumber(id), packed }
    end
  end
  return { 'ok', answers }
end
