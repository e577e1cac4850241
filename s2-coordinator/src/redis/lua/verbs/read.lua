-- read <topic> <start> <position> <limit>, where the start is `beginning`, `now`, `after` or `tail`
local function verb()
  local name, start, position, limit = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
  local key, first, next_, average = P .. 'e:' .. name
  if name == 's2.journal' then
    key, first, next_, average = P .. 'journal', M.first, M.next, M.bytes / at_least(M.next - M.first, 1)
  else
    local topic = known_topic(name)
    if topic then
      first, next_, average = topic.first, topic.next, average_of(topic)
    else
      first = tonumber(call('HGET', P .. 'ended', name) or M.highest) + 1
      next_, average = first, 0
    end
  end
  local from = start == 'beginning' and first or start == 'now' and next_ or start == 'tail' and position or position + 1
  if from < first then
    return { 'not_retained', first }
  end
  local out = {}
  for _, entry in ipairs(from < next_ and entries_from(key, from, limit, average) or {}) do
    local nth = at_least(from - id_position(entry), 0)
    local place = first_text(entry) + nth * 2
    local run = { event_id(entry, nth) }
    while entry[2][place] and limit > 0 do
      run[#run + 1], place, limit = entry[2][place], place + 2, limit - 1
    end
    out[#out + 1] = run
  end
  if #out == 0 and start == 'tail' then
    call('SADD', P .. 'tails:' .. name, CHANNEL)
    if name == 's2.journal' then
      M.tails, M.changed = 1, true
    elseif topics[name] then
      topics[name].tails = 1
    end
  end
  return { 'ok', from, out, first, next_ }
end
