-- Dead letters that match: `<after> <topic> <group> <type> <limit> <n> <id>*`, empty for any.
--
-- A header is {topic, group, incarnation, died, position, type, event id, trace, weight, attempts, delivery, born, history}.

-- Numbers and headers of those that match, of at most 2,000 that were looked at, and where to go on.
local function select_letters()
  local after, topic, group, kind, limit = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
  local named, found, looked = tonumber(ARGV[10]), {}, 0
  while looked < 2000 do
    local ids = {}
    if named > 0 then
      for nth = 11, 10 + named do
        if tonumber(ARGV[nth]) > after then
          ids[#ids + 1] = ARGV[nth]
        end
      end
      table.sort(ids, function(a, b) return tonumber(a) < tonumber(b) end)
    else
      ids = call('ZRANGEBYSCORE', P .. 'letters', '(' .. int(after), '+inf', 'LIMIT', 0, 500)
    end
    if #ids == 0 then
      return found, false
    end
    local headers, last = call('HMGET', P .. 'letter', unpack(ids)), nil
    for nth, packed in ipairs(headers) do
      if packed and ids[nth] ~= last then
        last = ids[nth]
        local header = cmsgpack.unpack(packed)
        if (topic == '' or topic == header[1]) and (group == '' or group == header[2]) and
          (kind == '' or kind == header[6]) then
          found[#found + 1] = { tonumber(ids[nth]), header, packed }
          if #found >= limit then
            return found, false
          end
        end
      end
    end
    if named > 0 then
      return found, false
    end
    looked, after = looked + #ids, tonumber(ids[#ids])
  end
  return found, after
end

local function journal_letter(operation, id, header)
  journal {
    component = 'bus', operation = operation, subject = header[1], trace = header[8],
    params = {
      'id', id, 'group', header[2], 'event', header[7], 'position', header[5], 'attempts', header[10],
    },
  }
end

local function drop_letter(id, header)
  call('ZREM', P .. 'letters', int(id))
  call('HDEL', P .. 'letter', int(id))
  call('HDEL', P .. 'letter:events', int(id))
  local topic = find_topic(header[1])
  if topic then
    topic.dead = at_least(topic.dead - header[9], 0)
  end
  return topic
end
