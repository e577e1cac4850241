-- resolve <id> <by> <decision>
local function verb()
  local id, by, decision = ARGV[5], ARGV[6], ARGV[7]
  for _, old in ipairs(call('ZRANGEBYSCORE', P .. 'resolved:at', '-inf', now - C.window, 'LIMIT', 0, 100)) do
    call('ZREM', P .. 'resolved:at', old)
    call('HDEL', P .. 'resolved', old)
  end
  local before = call('HGET', P .. 'resolved', id)
  if before then
    before = cmsgpack.unpack(before)
    return before[1] == by and before[2] == decision and { 'ok' } or { 'resolved', before[1], before[2] }
  end
  local packed = call('HGET', P .. 'escalation', id)
  if not packed then
    return { 'unknown' }
  end
  local escalation = cmsgpack.unpack(packed)
  call('HDEL', P .. 'escalation', id)
  call('ZREM', P .. 'inbox', id)
  call('HDEL', P .. 'escalation:keys', escalation[1])
  journal {
    component = 'inbox', operation = 'resolve', subject = escalation[1], trace = escalation[5],
    params = {
      'id', tonumber(id), 'by', by, 'decision', decision, 'waited_ms', math.floor((now - escalation[6]) / 1000),
    },
  }
  call('HSET', P .. 'resolved', id, cmsgpack.pack({ by, decision }))
  call('ZADD', P .. 'resolved:at', now, id)
  return { 'ok' }
end
