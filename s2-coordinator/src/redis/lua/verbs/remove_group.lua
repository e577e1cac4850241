-- remove_group <topic> <group>
local function verb()
  local topic, name = find_topic(ARGV[5]), ARGV[6]
  local listed = topic and call('HGET', P .. 'tg:' .. topic.name, name)
  if not listed then
    return { 'ok', 0 }
  end
  local text = string.match(listed, '^%d+')
  local group = find_group(tonumber(text))
  call('HDEL', P .. 'tg:' .. topic.name, name)
  call('ZREMRANGEBYRANK', P .. 'removed', 0, -10001)
  call('ZADD', P .. 'removed', now, text)
  for place = 1, group and #group.queue or 0, QUEUED_BYTES do
    local consumer = struct.unpack(QUEUED, group.queue, place)
    local member = find_member(group, consumer)
    if member and member.wait then
      push(member.channel, { consumer, member.wait[1] })
    end
  end
  call('UNLINK', P .. 'g:' .. text, P .. 'ready:' .. text, P .. 'suspects:' .. text, P .. 'due:' .. text)
  list_waiting(topic, tonumber(text), false)
  groups[tonumber(text)] = false
  journal {
    component = 'bus', operation = 'group_removed', subject = topic.name,
    params = {
      'group', name, 'floor', group and group.floor or 0, 'unsettled', group and
        group.in_flight + group.returning + backlog(topic, group) or 0,
    },
  }
  trim(topic)
  forget_vacant(topic)
  return { 'ok', 1 }
end
